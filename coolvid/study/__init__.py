"""Looking and comparing: frames taken apart, reviews, reports, rate-distortion curves."""

"""Analysis and comparison: frame inspection, reviews, reports, rate-distortion curves."""

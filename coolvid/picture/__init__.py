"""What a picture is and how good: types, colour, quality, detail."""

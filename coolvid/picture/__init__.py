"""Pictures: types, colour, quality, detail."""

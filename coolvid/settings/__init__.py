"""All settings of an encode: configuration, presets, TOML, measured costs."""

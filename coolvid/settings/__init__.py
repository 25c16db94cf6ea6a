"""Every setting of an encode: configuration, presets, TOML, measured costs."""

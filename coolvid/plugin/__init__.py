"""The plugin API: interfaces on one screen, plugins by name, the modules of one Cool-chic."""

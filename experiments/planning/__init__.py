"""From a TOML file to checked settings: the plan, its victims, its threats, its plugins."""

"""How recurrent networks are computed."""

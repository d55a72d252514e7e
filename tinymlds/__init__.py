"""tinymlds."""

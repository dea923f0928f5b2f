"""Text processing that is done once per distinct value: patterns in linear time and templates of request paths."""

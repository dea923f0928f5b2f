"""Work on text that is done once per distinct value: patterns in linear time, templates of request paths."""

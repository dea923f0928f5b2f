"""For component authors: what several components share. No component imports a sibling; it imports this."""

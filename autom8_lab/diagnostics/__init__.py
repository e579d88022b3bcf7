"""What a lab tells about itself: whether it works here, and how fast."""

"""What is decided: pure; the time and a reply in, what follows out."""

"""What paint.py is made of: one file a concern."""

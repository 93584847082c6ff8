"""Parts of walk.py: the models compiled for a frame, the way, the records and the results."""

"""Procedural worlds that know their own colour, depth, normals, masks, captions and distances."""

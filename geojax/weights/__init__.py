"""Model folders of diffusers and transformers <-> parameter trees."""

"""Image models as a method sees them."""

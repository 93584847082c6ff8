"""Cameras, rays, volume rendering and warps: arrays in, arrays out (floor 0)."""

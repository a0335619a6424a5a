"""A procedural city in SpaceNet's own layout: what there is without real data."""

"""Building footprints from satellite imagery, from a SpaceNet bucket to a GeoJSON service.

Importing this package imports nothing heavy.
"""

__version__ = "0.1.0"

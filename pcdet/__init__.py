"""Training, distilling and evaluating LiDAR 3D object detectors."""

__version__ = "0.1.0"

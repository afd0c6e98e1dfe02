"""KITTI's object detection data."""

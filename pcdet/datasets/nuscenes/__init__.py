"""nuScenes: its tables, frames of several sweeps, info files, and its evaluation (Caesar et al., CVPR 2020)."""

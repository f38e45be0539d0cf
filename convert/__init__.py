"""Offline program: a MiniCPM-V-2 checkpoint in, OpenVINO artifacts with a manifest out."""

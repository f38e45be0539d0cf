"""Offline program: a MiniCPM-V-2 checkpoint in, OpenVINO artifacts with a manifest out."""

import service as service  # first of all: it turns OpenVINO's and NNCF's telemetry off

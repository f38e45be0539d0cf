"""MiniCPM-V-2 served over OpenAI-style HTTP with OpenVINO. Never imports torch or transformers."""

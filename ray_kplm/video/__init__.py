"""Videos: their frames read exactly, landmarks smoothed over time and drawn, the result written. Needs PyAV, extra `video`."""

"""Image operations: coordinate frames, crops, augmentation, warps, optical flow, drawing, the synthetic category."""

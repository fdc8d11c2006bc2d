"""Pictures: frames, augmentation, the synthetic category, drawing."""

"""Whether images suit a training, and whether new ones are like those of the training: statistics of images and verdicts."""

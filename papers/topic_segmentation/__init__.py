"""Linear topic segmentation of documents."""

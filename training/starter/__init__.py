"""Makes the embedded starter weights from raw pictures, passages and vocabularies."""

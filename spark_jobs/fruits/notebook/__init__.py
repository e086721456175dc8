"""What the notebook shows photos with: the listing, the photos, and rows of pictures."""

"""What several families share: splits, data files, caches, metric means and fixed samples."""

"""Reading images: any mode and depth, EXIF rotation, tar shards, limits."""

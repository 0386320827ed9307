"""Where results live: a local folder or an S3 prefix behind the same calls."""

"""The local web page over run folders: `dlx dashboard`."""

"""The dataset report: `content` says what is in it; `figures`, `maps` and `crops` draw; `page` makes one HTML file."""

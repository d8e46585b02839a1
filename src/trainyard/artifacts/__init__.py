"""What is sealed: bundles and exports, and the manifests that vouch for them."""

"""What lies in the folders of backbones: encoding and the bank need no more of them."""

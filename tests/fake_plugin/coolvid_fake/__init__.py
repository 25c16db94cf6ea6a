"""A quantizer and a synthesis of somebody else, as any third party would publish them."""

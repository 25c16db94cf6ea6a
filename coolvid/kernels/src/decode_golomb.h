// Signed exp-Golomb codes of network parameters (coolvid/records.py, BitReader.read_golomb; coolvid/bitstream/weights.py).
#pragma once
#include <cstddef>
#include <cstdint>

namespace coolvid::integer {

class GolombReader {
 public:
  GolombReader(const uint8_t* data, size_t n, size_t position) : data_(data), end_(8 * n), position_(position) {}
  size_t position() const { return position_; }

  // The next n values; false where one cannot be read or is beyond +-limit.
  bool read(int32_t* values, size_t n, int order, int64_t limit) {
    for (size_t i = 0; i < n; i++) {
      int zeros = 0;
      for (;; zeros++) {
        if (position_ == end_ || zeros > MAX_PREFIX) return false;
        if (bit()) break;
      }
      if (static_cast<size_t>(zeros) + order > end_ - position_) return false;
      uint64_t head = (uint64_t{1} << zeros | bits(zeros)) - 1;
      int64_t code = static_cast<int64_t>(head << order | bits(order));
      int64_t value = code & 1 ? (code + 1) / 2 : -(code / 2);
      if (value < -limit || value > limit) return false;
      values[i] = static_cast<int32_t>(value);
    }
    return true;
  }

 private:
  static constexpr int MAX_PREFIX = 32;
  bool bit() {
    bool one = data_[position_ >> 3] >> (7 - (position_ & 7)) & 1;
    position_++;
    return one;
  }
  uint64_t bits(int n) {
    uint64_t value = 0;
    for (int i = 0; i < n; i++) value = value << 1 | static_cast<uint64_t>(bit());
    return value;
  }

  const uint8_t* data_;
  size_t end_, position_;
};

}  // namespace coolvid::integer

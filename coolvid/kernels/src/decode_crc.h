// CRC-32C (RFC 3720, appendix B.4), eight bytes a step.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

namespace coolvid::integer {

class Crc32c {
 public:
  static uint32_t of(const uint8_t* data, size_t n) {
    static const Crc32c tables;
    uint32_t crc = ~0u;
    for (; n >= 8; n -= 8, data += 8) {
      uint32_t low = crc ^ (data[0] | data[1] << 8 | data[2] << 16 | static_cast<uint32_t>(data[3]) << 24);
      crc = tables.t_[7][low & 255] ^ tables.t_[6][low >> 8 & 255] ^ tables.t_[5][low >> 16 & 255] ^ tables.t_[4][low >> 24] ^
            tables.t_[3][data[4]] ^ tables.t_[2][data[5]] ^ tables.t_[1][data[6]] ^ tables.t_[0][data[7]];
    }
    for (; n; n--, data++) crc = tables.t_[0][(crc ^ *data) & 255] ^ crc >> 8;
    return ~crc;
  }

 private:
  Crc32c() {
    for (uint32_t i = 0; i < 256; i++) {
      uint32_t row = i;
      for (int bit = 0; bit < 8; bit++) row = row >> 1 ^ (row & 1 ? 0x82F63B78u : 0);
      t_[0][i] = row;
    }
    for (int k = 1; k < 8; k++)
      for (int i = 0; i < 256; i++) t_[k][i] = t_[0][t_[k - 1][i] & 255] ^ t_[k - 1][i] >> 8;
  }
  std::array<std::array<uint32_t, 256>, 8> t_;
};

}  // namespace coolvid::integer

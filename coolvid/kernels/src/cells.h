// Where in a picture errors arise: their squares, added up over square cells of pixels.
#pragma once
#include <algorithm>

namespace coolvid {

// out [rows, columns] += the squared errors of a plane [height, width] over each cell of side x side.
inline void add_cell_errors(const float* plane, const float* target, int height, int width, int side, int columns, double* out) {
  for (int y = 0; y < height; y++, plane += width, target += width) {
    double* row = out + static_cast<ptrdiff_t>(y / side) * columns;
    for (int left = 0, c = 0; left < width; left += side, c++) {
      float sum = 0.f;
      for (int x = left, right = std::min(left + side, width); x < right; x++) {
        float error = plane[x] - target[x];
        sum += error * error;
      }
      row[c] += sum;
    }
  }
}

}  // namespace coolvid

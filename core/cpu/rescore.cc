#include "core/cpu/rescore.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

namespace tiny_knn {

template <typename T>
void SortRanked(std::vector<Ranked<T>>& docs, std::vector<Ranked<T>>& scratch) {
  using Key = ScoreKey<T>;
  constexpr int kDigitBits = 10;
  constexpr size_t kBins = size_t{1} << kDigitBits;
  constexpr size_t kSmall = 256;  // below this the histograms cost more than they save
  constexpr int kMostPasses = 3;
  Key least = ~Key{0};
  Key greatest = 0;
  for (const Ranked<T>& doc : docs) {
    least = std::min(least, doc.key);
    greatest = std::max(greatest, doc.key);
  }
  const auto by_index = [](const Ranked<T>& a, const Ranked<T>& b) { return a.index < b.index; };
  const int key_bits = docs.empty() ? 0 : static_cast<int>(std::bit_width(greatest - least));
  if (docs.size() < kSmall || key_bits > kMostPasses * kDigitBits ||
      !std::is_sorted(docs.begin(), docs.end(), by_index)) {
    std::sort(docs.begin(), docs.end());
    return;
  }
  // Stable, least digit first; the greatest key has digit 0.
  scratch.resize(docs.size());
  for (int shift = 0; shift < key_bits; shift += kDigitBits) {
    const auto digit = [&](const Ranked<T>& doc) {
      return (greatest - doc.key) >> shift & (kBins - 1);
    };
    std::array<uint32_t, kBins> next{};
    for (const Ranked<T>& doc : docs) ++next[digit(doc)];
    uint32_t before = 0;
    for (uint32_t& count : next) before += std::exchange(count, before);
    for (const Ranked<T>& doc : docs) scratch[next[digit(doc)]++] = doc;
    docs.swap(scratch);
  }
}

template <typename T>
void ExactTop<T>::Merge(std::vector<Ranked<T>>& found, std::vector<Ranked<T>>& scratch) {
  SortRanked(found, scratch);
  scratch.resize(best_.size() + found.size());
  std::merge(best_.begin(), best_.end(), found.begin(), found.end(), scratch.begin());
  const size_t kept = std::min(scratch.size(), static_cast<size_t>(k_ + 1));
  best_.reserve(static_cast<size_t>(k_ + 1));
  best_.assign(scratch.begin(), scratch.begin() + static_cast<int64_t>(kept));
}

template <typename T>
bool ExactTop<T>::Write(T* scores, int64_t* indices) const {
  for (int64_t rank = 0; rank < k_; ++rank) {
    scores[rank] = ScoreOfKey<T>(best_[static_cast<size_t>(rank)].key);
    indices[rank] = best_[static_cast<size_t>(rank)].index;
  }
  return static_cast<int64_t>(best_.size()) > k_ &&
         best_[static_cast<size_t>(k_)].key == best_[static_cast<size_t>(k_ - 1)].key;
}

template void SortRanked<float>(std::vector<Ranked<float>>&, std::vector<Ranked<float>>&);
template void SortRanked<double>(std::vector<Ranked<double>>&, std::vector<Ranked<double>>&);
template class ExactTop<float>;
template class ExactTop<double>;

}  // namespace tiny_knn

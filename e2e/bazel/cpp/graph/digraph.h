#ifndef GRAPH_DIGRAPH_H_
#define GRAPH_DIGRAPH_H_

#include <cstddef>
#include <vector>

namespace graph {

// A directed graph on the nodes 0 to size() - 1.
class Digraph {
 public:
  explicit Digraph(std::size_t size) : successors_(size) {}

  void AddEdge(std::size_t from, std::size_t to);
  std::size_t size() const { return successors_.size(); }
  const std::vector<std::size_t>& SuccessorsOf(std::size_t node) const;

 private:
  std::vector<std::vector<std::size_t>> successors_;
};

}  // namespace graph

#endif  // GRAPH_DIGRAPH_H_

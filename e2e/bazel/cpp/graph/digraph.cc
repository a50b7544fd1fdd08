#include "graph/digraph.h"

namespace graph {

void Digraph::AddEdge(std::size_t from, std::size_t to) { successors_.at(from).push_back(to); }

const std::vector<std::size_t>& Digraph::SuccessorsOf(std::size_t node) const {
  return successors_.at(node);
}

}  // namespace graph

#include "graph/order.h"

namespace graph {

std::optional<std::vector<std::size_t>> TopologicalOrder(const Digraph& graph) {
  std::vector<std::size_t> predecessors(graph.size());
  for (std::size_t node = 0; node < graph.size(); ++node) {
    for (const std::size_t next : graph.SuccessorsOf(node)) ++predecessors.at(next);
  }
  std::vector<std::size_t> order;
  for (std::size_t node = 0; node < graph.size(); ++node) {
    if (predecessors[node] == 0) order.push_back(node);
  }
  for (std::size_t done = 0; done < order.size(); ++done) {
    for (const std::size_t next : graph.SuccessorsOf(order[done])) {
      if (--predecessors[next] == 0) order.push_back(next);
    }
  }
  if (order.size() != graph.size()) return std::nullopt;
  return order;
}

}  // namespace graph

#ifndef GRAPH_ORDER_H_
#define GRAPH_ORDER_H_

#include <cstddef>
#include <optional>
#include <vector>

#include "graph/digraph.h"

namespace graph {

// The nodes, each before its successors; nothing when there is a cycle.
std::optional<std::vector<std::size_t>> TopologicalOrder(const Digraph& graph);

}  // namespace graph

#endif  // GRAPH_ORDER_H_

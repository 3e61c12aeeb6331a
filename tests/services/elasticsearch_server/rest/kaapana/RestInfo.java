package kaapana;

import java.util.List;
import java.util.function.Supplier;
import org.elasticsearch.Build;
import org.elasticsearch.client.internal.node.NodeClient;
import org.elasticsearch.cluster.service.ClusterService;
import org.elasticsearch.index.IndexVersion;
import org.elasticsearch.rest.BaseRestHandler;
import org.elasticsearch.rest.RestRequest;
import org.elasticsearch.rest.RestResponse;
import org.elasticsearch.rest.RestStatus;
import org.elasticsearch.xcontent.XContentBuilder;

/** GET / and HEAD /, from the node's own values. */
final class RestInfo extends BaseRestHandler {
    private final Supplier<ClusterService> clusterService;

    RestInfo(Supplier<ClusterService> clusterService) { this.clusterService = clusterService; }

    @Override public String getName() { return "kaapana_info"; }
    @Override public List<Route> routes() {
        return List.of(new Route(RestRequest.Method.GET, "/"), new Route(RestRequest.Method.HEAD, "/"));
    }

    @Override
    protected RestChannelConsumer prepareRequest(RestRequest request, NodeClient client) {
        return channel -> {
            ClusterService service = clusterService.get();
            Build build = Build.current();
            XContentBuilder out = channel.newBuilder();
            out.prettyPrint().startObject();
            out.field("name", service.getNodeName());
            out.field("cluster_name", service.getClusterName().value());
            out.field("cluster_uuid", service.state().metadata().clusterUUID());
            out.startObject("version");
            out.field("number", build.qualifiedVersion());
            out.field("build_flavor", build.flavor());
            out.field("build_type", build.type().displayName());
            out.field("build_hash", build.hash());
            out.field("build_date", build.date());
            out.field("build_snapshot", build.isSnapshot());
            out.field("lucene_version", IndexVersion.current().luceneVersion().toString());
            out.field("minimum_wire_compatibility_version", build.minWireCompatVersion());
            out.field("minimum_index_compatibility_version", build.minIndexCompatVersion());
            out.endObject();
            out.field("tagline", "You Know, for Search");
            out.endObject();
            channel.sendResponse(new RestResponse(RestStatus.OK, out));
        };
    }
}

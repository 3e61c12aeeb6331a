import java.io.IOException;
import java.io.InputStream;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.jar.JarFile;
import org.elasticsearch.Build;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;

/**
 * Runs one real Elasticsearch node on 127.0.0.1 until it gets SIGTERM; it is ready when its port answers.
 * Arguments: home folder, folder with the netty jars, jar of the REST plugin, http port, then key=value settings.
 */
public final class ElasticsearchNode {
    public static void main(String[] args) throws Exception {
        Path home = Path.of(args[0]).toAbsolutePath();
        Files.createDirectories(home.resolve("config"));
        String version = Build.current().version();

        Path netty = home.resolve("modules/transport-netty4");
        Files.createDirectories(netty);
        try (DirectoryStream<Path> jars = Files.newDirectoryStream(Path.of(args[1]), "*.jar")) {
            for (Path jar : jars) {
                link(jar, netty);
                if (jar.getFileName().toString().startsWith("transport-netty4-")) {
                    descriptor(jar, netty);
                }
            }
        }
        Path rest = home.resolve("plugins/kaapana-rest");
        Files.createDirectories(rest);
        link(Path.of(args[2]), rest);
        Files.writeString(rest.resolve("plugin-descriptor.properties"), String.join("\n", "name=kaapana-rest",
            "description=the REST calls of modules that are not on Maven Central", "version=" + version,
            "classname=kaapana.RestPlugin", "java.version=21", "elasticsearch.version=" + version, ""));

        Settings.Builder settings = Settings.builder()
            .put("path.home", home.toString())
            .put("cluster.name", "kaapana-services")
            .put("node.name", "kaapana-node")
            .put("discovery.type", "single-node")
            .put("network.host", "127.0.0.1")
            .put("transport.port", "0")
            .put("http.port", args[3])
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .put("logger.level", "WARN");
        for (int i = 4; i < args.length; i++) {
            int eq = args[i].indexOf('=');
            settings.put(args[i].substring(0, eq), args[i].substring(eq + 1));
        }
        LogConfigurator.configureESLogging();
        LogConfigurator.configureWithoutConfig(settings.build());
        Environment env = InternalSettingsPreparer.prepareEnvironment(settings.build(), Map.of(), null, () -> "kaapana-node");
        Node node = new Node(env, Plugins.of(env));

        CountDownLatch stop = new CountDownLatch(1);
        CountDownLatch stopped = new CountDownLatch(1);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stop.countDown();
            try {
                stopped.await(30, TimeUnit.SECONDS);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }));
        node.start();
        stop.await();
        try {
            node.close();
            node.awaitClose(20, TimeUnit.SECONDS);
        } finally {
            stopped.countDown();
        }
        System.exit(0);
    }

    private static void link(Path jar, Path dir) throws IOException {
        Path link = dir.resolve(jar.getFileName());
        Files.deleteIfExists(link);
        Files.createSymbolicLink(link, jar.toRealPath());
    }

    /** The jar carries its own descriptor; without the module name it loads into a plain class loader, as the server does here. */
    private static void descriptor(Path jar, Path dir) throws IOException {
        try (JarFile file = new JarFile(jar.toFile());
                InputStream in = file.getInputStream(file.getEntry("META-INF/es-plugins/transport-netty4/plugin-descriptor.properties"))) {
            String text = new String(in.readAllBytes(), java.nio.charset.StandardCharsets.UTF_8);
            Files.writeString(dir.resolve("plugin-descriptor.properties"), text.replaceAll("(?m)^modulename=.*$", ""));
        }
    }
}
